"""Faults: connections cut, clients and servers killed, each at points that are named and come again."""
