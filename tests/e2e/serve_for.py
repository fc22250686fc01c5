#!/usr/bin/env python3
"""Starts a station, runs the given command with PHAROS_URL set to it, stops the station, answers the worse exit code."""
import os
import subprocess
import sys

from station import Station

with Station() as station:
    code = subprocess.run(sys.argv[1:], env={**os.environ, "PHAROS_URL": station.url}, check=False).returncode
sys.exit(code)
