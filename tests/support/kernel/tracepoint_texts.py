"""Parts of what Linux 6.18 and 6.1 write into `format` files and into `header_page`."""

from __future__ import annotations

_COMMON = """format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""

_STATES = (
    "ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING NEW_SYN_RECV"
)
_NUMBERED = ", ".join(f'{{ {at}, "TCP_{name}" }}' for at, name in enumerate(_STATES.split(), 1))
_NAMED = ", ".join(f'{{ TCP_{name}, "TCP_{name}" }}' for name in _STATES.split())

SET_STATE = f"""name: inet_sock_set_state
ID: 2287
{_COMMON}\tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:int oldstate;\toffset:16;\tsize:4;\tsigned:1;
\tfield:int newstate;\toffset:20;\tsize:4;\tsigned:1;
\tfield:__u16 sport;\toffset:24;\tsize:2;\tsigned:0;
\tfield:__u16 dport;\toffset:26;\tsize:2;\tsigned:0;
\tfield:__u16 family;\toffset:28;\tsize:2;\tsigned:0;
\tfield:__u16 protocol;\toffset:30;\tsize:2;\tsigned:0;
\tfield:__u8 saddr[4];\toffset:32;\tsize:4;\tsigned:0;
\tfield:__u8 daddr[4];\toffset:36;\tsize:4;\tsigned:0;
\tfield:__u8 saddr_v6[16];\toffset:40;\tsize:16;\tsigned:0;
\tfield:__u8 daddr_v6[16];\toffset:56;\tsize:16;\tsigned:0;

print fmt: "family=%s oldstate=%s newstate=%s", __print_symbolic(REC->family, {{ 2, "AF_INET" }}, \
{{ 10, "AF_INET6" }}), __print_symbolic(REC->oldstate, {_NUMBERED}), __print_symbolic(REC->newstate, {_NUMBERED})
"""

SEND_RESET = f"""name: tcp_send_reset
ID: 2280
{_COMMON}\tfield:const void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:const void * skaddr;\toffset:16;\tsize:8;\tsigned:0;
\tfield:int state;\toffset:24;\tsize:4;\tsigned:1;
\tfield:enum sk_rst_reason reason;\toffset:28;\tsize:4;\tsigned:0;
\tfield:__u8 saddr[28];\toffset:32;\tsize:28;\tsigned:0;
\tfield:__u8 daddr[28];\toffset:60;\tsize:28;\tsigned:0;

print fmt: "src=%pISpc dest=%pISpc state=%s reason=%s", REC->saddr, REC->daddr, REC->state ? \
__print_symbolic(REC->state, {_NAMED}) : "UNKNOWN", __print_symbolic(REC->reason, {{ 0, "NOT_SPECIFIED" }}, \
{{ 1, "NO_SOCKET" }}, {{ 11, "TCP_ABORT_ON_CLOSE" }})
"""

OLD_SEND_RESET = f"""name: tcp_send_reset
ID: 1400
{_COMMON}\tfield:const void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:const void * skaddr;\toffset:16;\tsize:8;\tsigned:0;
\tfield:int state;\toffset:24;\tsize:4;\tsigned:1;
\tfield:__u16 sport;\toffset:28;\tsize:2;\tsigned:0;
\tfield:__u16 dport;\toffset:30;\tsize:2;\tsigned:0;
\tfield:__u16 family;\toffset:32;\tsize:2;\tsigned:0;
\tfield:__u8 saddr[4];\toffset:34;\tsize:4;\tsigned:0;
\tfield:__u8 daddr[4];\toffset:38;\tsize:4;\tsigned:0;
\tfield:__u8 saddr_v6[16];\toffset:42;\tsize:16;\tsigned:0;
\tfield:__u8 daddr_v6[16];\toffset:58;\tsize:16;\tsigned:0;

print fmt: "skbaddr=%p skaddr=%p state=%s", REC->skbaddr, REC->skaddr, __print_symbolic(REC->state, {_NUMBERED})
"""

HEADER_PAGE = """\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
"""
