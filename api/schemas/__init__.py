"""What goes over the wire, validated."""
