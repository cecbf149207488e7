"""What a report says about a guest that has come to a bad end."""
