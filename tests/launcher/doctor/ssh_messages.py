"""What OpenSSH writes to standard error when it ends with exit code 255."""

from __future__ import annotations

CHANGED_KEY = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:0000000000000000000000000000000000000000000.
Please contact your system administrator.
Add correct host key in /home/me/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/me/.ssh/known_hosts:1
  remove with:
  ssh-keygen -f "/home/me/.ssh/known_hosts" -R "node2"
Host key for node2 has changed and you have requested strict checking.
Host key verification failed.
"""
UNKNOWN_KEY = """\
No ED25519 host key is known for node2 and you have requested strict checking.
Host key verification failed.
"""
UNASKED_KEY = "Host key verification failed.\n"
UNKNOWN_NAME = "ssh: Could not resolve hostname node2: Name or service not known\n"
REFUSED = "ssh: connect to host node2 port 22: Connection refused\n"
TIMED_OUT = "ssh: connect to host node2 port 22: Connection timed out\n"
NO_ROUTE = "ssh: connect to host node2 port 22: No route to host\n"
NO_BANNER = "Connection timed out during banner exchange\nConnection to 10.0.0.2 port 22 timed out\n"
DENIED = "me@node2: Permission denied (publickey,keyboard-interactive).\n"
CLOSED = (
    "kex_exchange_identification: Connection closed by remote host\nConnection closed by 10.0.0.2 port 22\n"
)
