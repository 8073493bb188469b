#!/usr/bin/env python3
"""A load that must not pass a gate: 200 connections to a listener that accepts none.

The listener's queue has room for 101 connections; the SYNs of the others get no answer. Run it as

    handshake check -i lo --port 8080 --expect 'completed / attempts >= 99.9%' -- examples/full-queue.py
"""
import socket
import time

ADDRESS = ("127.0.0.1", 8080)
server = socket.create_server(ADDRESS, backlog=100)
clients = [socket.socket() for _ in range(200)]
for client in clients:
    client.setblocking(False)
    client.connect_ex(ADDRESS)
time.sleep(0.5)
