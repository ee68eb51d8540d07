"""What lies on disk: whole files, the typed contents that stages exchange, and what vouches for them."""
