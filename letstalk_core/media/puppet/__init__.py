"""Portraits that move by geometry alone: photo puppets."""
