"""`python -m tests.lab.scenes.outside SCENE FAMILY NAME FD`: all players behind the TUN device of a scene."""

import select

from tests.lab.scenes import actor
from tests.lab.scenes.clients import Crowd
from tests.lab.scenes.hosts import Hosts
from tests.lab.scenes.line import Device, Timetable


def play(device: Device, timetable: Timetable, crowd: Crowd, hosts: Hosts) -> None:
    """Run until the part is over."""
    while True:
        readable, _, _ = select.select([device.fd, actor.CUE], [], [], timetable.pause_s)
        if actor.CUE in readable:
            return
        while segment := device.read():
            if not crowd.hear(segment):
                hosts.hear(segment)
            timetable.do_what_is_due()
        timetable.do_what_is_due()


def main() -> None:
    part = actor.part()
    (fd,) = part.fds
    device, timetable = Device(fd), Timetable()
    crowd = Crowd(device, timetable, part.family, part.scene.name)
    hosts = Hosts(device, timetable, part.scene.hosts)
    actor.say_ready()
    for kind in part.scene.clients:
        crowd.expect(kind)
    play(device, timetable, crowd, hosts)


if __name__ == "__main__":
    main()
