"""nginx as the upstream, which answers at once, and as the plain reverse proxy to compare with."""

import json

from .service import Service, free_port

CONF = """
daemon off;
master_process off;
error_log {folder}/{name}.log;
pid {folder}/{name}.pid;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_max_body_size 16m;
    client_body_buffer_size 512k;
    client_body_temp_path {folder}/{name}.body;
    proxy_temp_path {folder}/{name}.proxied;
    fastcgi_temp_path {folder}/{name}.fastcgi;
    uwsgi_temp_path {folder}/{name}.uwsgi;
    scgi_temp_path {folder}/{name}.scgi;
    {servers}
}}
"""

STUB = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type application/json;
        location = /api/external/auth/session {{ return 200 '{session}'; }}
        location ~ /status$ {{ return 200 '{status}'; }}
        location / {{ {answer} }}
    }}
"""

# A file is an answer to GET alone, so a POST is refused first, and the file is the refusal's page.
OF_FILE = """
            root {folder}; error_page 405 =200 /{file}; return 405; }}
        location = /{file} {{ internal; root {folder};"""

PLAIN = """
    upstream stub {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://stub;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
"""

SESSION = {"session_nonce": "0123456789abcdef0123456789abcdef", "expires_in": 86400}
STATUS = {"job": {"status": "reserved"}, "has_active_reservation": True, "submission": None}


def stub(folder, answers=()):
    """The upstream: a list of ten jobs on its port, and each of the files on a port of its own."""
    port = free_port()
    ports = {file: free_port() for file in answers}
    servers = server(port, f"return 200 '{json.dumps(job_list())}';")
    for file, file_port in ports.items():
        servers += server(file_port, OF_FILE.format(folder=folder, file=file).strip())
    service = start(folder, "stub", port, servers)
    service.ports = ports
    return service


def plain(folder, upstream):
    """A reverse proxy that only passes on, with connections that stay open."""
    port = free_port()
    return start(folder, "nginx", port, PLAIN.format(port=port, upstream=upstream))


def server(port, answer):
    session, status = json.dumps(SESSION), json.dumps(STATUS)
    return STUB.format(port=port, session=session, status=status, answer=answer)


def start(folder, name, port, servers):
    conf = folder / f"{name}.conf"
    conf.write_text(CONF.format(folder=folder, name=name, servers=servers))
    command = ["nginx", "-p", folder, "-e", folder / f"{name}.log", "-c", conf]
    return Service(name, command, port, log=folder / f"{name}.out")


def job_list():
    """Ten jobs, about 2.7 kB."""
    jobs = [job(number) for number in range(10)]
    return {"jobs": jobs, "limit": 10, "skip": 0}


def job(number):
    return {
        "job_id": f"68f0a1c27b3e4d5f607182{number:02}",
        "title": f"Summarise support ticket {12340 + number}",
        "public_description": "Read the ticket, say in five sentences what the customer wants and "
                              "what was tried, and name the product it is about.",
        "reward_credits": 100 + 5 * number,
        "status": "open",
        "job_type": "general",
    }
