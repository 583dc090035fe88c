"""Side-by-side measurements of the quantizers and their peers; nothing here is imported by the course."""
