"""A record of the state stream on disk, and its reading: what did the screens show at that moment?"""
