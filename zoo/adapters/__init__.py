"""Small trainable parts on frozen encoders, one published idea a file."""
