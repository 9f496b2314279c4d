"""The two images and how they are built: `Dockerfile.*` say what is in them, `build.py` brings the parts together."""
