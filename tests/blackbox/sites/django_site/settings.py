"""Settings of a Django project that is careful about HTTPS, as its deployment checklist has it."""

SECRET_KEY = "not a secret: " + "0123456789" * 5
DEBUG = False
ALLOWED_HOSTS = ["server.lab"]
ROOT_URLCONF = "django_site.urls"
WSGI_APPLICATION = "django_site.wsgi.application"
INSTALLED_APPS: list[str] = []
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
USE_TZ = True

SECURE_SSL_REDIRECT = True  # endless, if a request did not look secure
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
FILE_UPLOAD_MAX_MEMORY_SIZE = 65536
