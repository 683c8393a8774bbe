"""A member of a group in a process of its own, for others to kill: BOOTSTRAP TOPIC SETTING=VALUE..."""

import sys
import time

from confluent import Member

settings = dict(word.split("=", 1) for word in sys.argv[3:])
with Member(sys.argv[1], [sys.argv[2]], **settings):
    while True:
        time.sleep(60)
