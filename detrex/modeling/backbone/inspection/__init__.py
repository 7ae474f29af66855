"""What a network is, seen by runs on the meta device, without data; nothing is changed."""
