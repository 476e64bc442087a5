"""Imports inside the package point down, or sideways within a layer, and never in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import uwsgi_tls

PACKAGE = Path(uwsgi_tls.__file__).parent
LAYERS = (
    "__init__ errors gone addresses https_option converters options placeholders ini ignored config client_allow"
    " logger_option rfc2253 policy names sites hello proxy_protocol http websocket chunked response pace spool tally"
    " uwsgi_packet",
    "sockets listeners pem pkcs12 private_keys chains revocations certificates passphrases refusals tls contexts peer"
    " capabilities users privileges surroundings powers heritage pidfile titles daemon log_text log_targets datagrams"
    " syslog journald logs log_opening access_log failures trusted_path own_file monitor watch fifo status_file"
    " condition scoreboard certificate_authority pki_files pki_passwords pki activation notify",
    "lounge crowd channel intake sources service farewell access exchange connection tunnel arrival vhosts"
    " backends calls wear census acceptor stats",
    "worker",
    "named endpoints masters_own reconfigure change respawn workers overdue fleet looks signals teller standing"
    " upgrade supervisor life master succession",
    "check help man completion tree explain control status cli __main__",
)
LAYER_OF = {name: height for height, names in enumerate(LAYERS) for name in names.split()}
PATH_OF = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imports(module: str, *, for_types_too: bool) -> set[str]:
    """The modules of the package that `module` imports, wherever in it that stands."""
    tree = ast.parse(PATH_OF[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types_too:
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = ["uwsgi_tls", *module.split(".")][: -node.level] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    inside = {name.removeprefix("uwsgi_tls.") for name in found if name.startswith("uwsgi_tls.")}
    return inside & PATH_OF.keys()


def test_imports_point_down() -> None:
    pairs = [(module, other) for module in PATH_OF for other in imports(module, for_types_too=True)]
    assert len(pairs) > len(PATH_OF), "it finds the imports"
    assert {name.split(".")[0] for name in PATH_OF} <= LAYER_OF.keys(), "a module without a layer"
    wrong = [pair for pair in pairs if LAYER_OF[pair[0].split(".")[0]] < LAYER_OF[pair[1].split(".")[0]]]
    assert not wrong


def test_no_import_is_circular() -> None:
    list(TopologicalSorter({module: imports(module, for_types_too=False) for module in PATH_OF}).static_order())
