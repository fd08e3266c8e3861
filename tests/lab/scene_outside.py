"""`python -m tests.lab.scene_outside SCENE FAMILY NAME FD`: all who are behind the TUN device of a scene."""

import select

from tests.lab import scene_actor
from tests.lab.scene_clients import Crowd
from tests.lab.scene_hosts import Hosts
from tests.lab.scene_line import Device, Timetable


def play(device: Device, timetable: Timetable, crowd: Crowd, hosts: Hosts) -> None:
    """Until the part is over."""
    while True:
        readable, _, _ = select.select([device.fd, scene_actor.CUE], [], [], timetable.pause_s)
        if scene_actor.CUE in readable:
            return
        while segment := device.read():
            if not crowd.hear(segment):
                hosts.hear(segment)
            timetable.do_what_is_due()
        timetable.do_what_is_due()


def main() -> None:
    part = scene_actor.part()
    (fd,) = part.fds
    device, timetable = Device(fd), Timetable()
    crowd = Crowd(device, timetable, part.family, part.scene.name)
    hosts = Hosts(device, timetable, part.scene.hosts)
    scene_actor.say_ready()
    for kind in part.scene.clients:
        crowd.expect(kind)
    play(device, timetable, crowd, hosts)


if __name__ == "__main__":
    main()
