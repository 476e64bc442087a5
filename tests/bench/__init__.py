"""The benchmark behind bin/bench: ours beside nginx, uWSGI, gunicorn and granian doing the same work in the same run.

`load` is the client, `peers` starts and stops the servers, `measure` runs the cases and reads the CPU clocks, `probes`
asks what is no cost of an operation. `targets` says what is promised, `report` makes the table and the JSON, `chart`
and `document` what stands in docs/performance.md. Nothing here is imported by the product.
"""
