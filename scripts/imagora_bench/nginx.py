"""nginx as what Imagora is compared with, and as members whose answers lie in files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from imagora_bench.processes import BenchError, Child
from portal.assets import MEDIA_TYPES
from portal.isolation import ISOLATION_HEADERS

_CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    tcp_nopush on;
    # As long as it runs: a connection that is closed between two runs would be opened again within one.
    keepalive_timeout 1h;
    keepalive_requests 100000000;
    {http}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        {server}
    }}
}}
"""

#: Its connections to the upstream are kept, as Imagora keeps its own.
_UPSTREAM = """
    upstream pacs {{ server {address}; keepalive 64; keepalive_requests 100000000; }}"""

_PROXY = """
        location {path} {{
            proxy_pass http://pacs;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_buffering off;
        }}"""

_MEMBERS = """
        root {root};
        location ~ ^/(m[0-9]+)/dicom-web/studies$ {{
            types {{ }}
            default_type application/dicom+json;
            try_files /$1.json =404;
        }}
        location = /count {{ stub_status; }}"""

_VIEWER = """
        root {dist};
        {headers}
        gzip_static on;
        types {{ {types} }}
        location = /app-config.js {{ root {folder}; }}
        location / {{ try_files $uri /index.html; }}"""


def nginx_program() -> Path | None:
    return next(
        (p for p in map(Path, ("/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx")) if p.exists()), None
    )


def proxy(folder: Path, *, port: int, upstream: str) -> Child:
    """All of it before `upstream`, an address without a path."""
    return _start(folder, "nginx", port, http=_upstream(upstream), server=_PROXY.format(path="/"))


def viewer(folder: Path, *, port: int, upstream: str, dist: Path, config: bytes) -> Child:
    """OHIF's build with this `app-config.js`, and `upstream` behind `/dicom-web/`."""
    own = folder / "viewer"
    own.mkdir(exist_ok=True)
    (own / "app-config.js").write_bytes(config)
    headers = [f"add_header {name.decode()} {json.dumps(value.decode())} always;" for name, value in ISOLATION_HEADERS]
    types = [f"{json.dumps(kind)} {ending[1:]};" for ending, kind in MEDIA_TYPES.items() if ending != ".gz"]
    server = _VIEWER.format(dist=dist, folder=own, headers=" ".join(headers), types=" ".join(types))
    server += _PROXY.format(path="/dicom-web/")
    return _start(folder, "nginx-viewer", port, http=_upstream(upstream), server=server)


def members(folder: Path, *, port: int, root: Path) -> Child:
    """`/mN/dicom-web/studies` is the file `mN.json` below `root`, whatever is asked for; `/count` counts requests."""
    return _start(folder, "nginx-members", port, server=_MEMBERS.format(root=root))


def _upstream(url: str) -> str:
    return _UPSTREAM.format(address=url.removeprefix("http://"))


def _start(folder: Path, name: str, port: int, *, http: str = "", server: str) -> Child:
    program = nginx_program()
    if program is None:
        raise BenchError("nginx is missing: scripts/setup --tests installs it")
    # Its workers would not be let into folders that are ours alone.
    user = "user root root;" if os.geteuid() == 0 else ""
    own = folder / name
    own.mkdir(exist_ok=True)
    config = own / "nginx.conf"
    config.write_text(_CONFIG.format(folder=own, user=user, port=port, http=http, server=server), encoding="utf-8")
    return Child(name, [program, "-e", "stderr", "-p", own, "-c", config], folder)
