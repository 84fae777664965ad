"""Photo puppets: still portraits that are moved as motion curves say, to make training clips."""
