"""A cluster of three hosts on one machine. They are network namespaces with their own addresses, host names and sshd;
the machine itself is the login node from which runs are launched, and the file system is shared."""

from testbed.session import TestbedError
from testbed.testbed import Testbed

__all__ = ["Testbed", "TestbedError"]
