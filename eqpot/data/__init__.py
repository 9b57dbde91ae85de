"""From files of frames to graphs."""
