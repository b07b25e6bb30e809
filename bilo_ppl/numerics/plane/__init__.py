"""Elliptic problems on rectangles."""
