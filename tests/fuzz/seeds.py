"""Texts of /proc as Linux 6.18 writes them, shortened."""

from __future__ import annotations

_SNMP = b"""Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 12345
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens CurrEstab InSegs OutSegs RetransSegs
Tcp: 1 200 120000 -1 1234 567 11 1213141516 1718192021 2223
"""
_NETSTAT = b"""TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed ListenOverflows ListenDrops TCPOrigDataSent
TcpExt: 0 0 0 17 18 123456789
IpExt: InNoRoutes InTruncatedPkts
IpExt: 0 0
"""
_SOCKSTAT = b"sockets: used 300\nTCP: inuse 5 orphan 0 tw 12 alloc 9 mem 3\nUDP: inuse 2 mem 1\n"
PROC_NET = (_SNMP, _NETSTAT, _SOCKSTAT, b"TCP6: inuse 5\nUDP6: inuse 0\n")

_STAT = (
    b"7 (tmux: server) S 1 7 7 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 4711 12345 678 18446744073709551615 1 1 0 0 0\n"
)
_STATUS = b"Name:\tnginx\nUmask:\t0022\nTgid:\t7\nPid:\t7\nUid:\t33\t33\t33\t33\nGroups:\t33 \n"
_LIMITS = b"""Limit                     Soft Limit           Hard Limit           Units
Max processes             63432                63432                processes
Max open files            1024                 524288               files
"""
_RING = b"UserFiles:\t2\n    0: socket:[123]\n    1: socket:[99999999999]\n"
PROCESS = (_STAT, _STATUS, b"nginx: master process\0-g\0x y\0", _LIMITS, _RING)
