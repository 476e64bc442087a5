"""The benchmark behind bin/bench: ours beside nginx, uWSGI and gunicorn doing the same work in the same run.

`load` is the client, `peers` starts and stops the servers, `measure` runs the cases and reads the CPU clocks,
`report` makes the table and the JSON. Nothing here is imported by the product, and no figure is asserted.
"""
