"""The stages: each file reads as the story of one command."""
