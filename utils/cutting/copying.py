"""Cutting without encoding: compressed pictures and sound as they are, with other times."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path

from utils.basic_utils import InputError
from utils.cutting.containers import Container, NotWrittenError, written
from utils.cutting.looking import Packets, held_packets, sound_of
from utils.video_feature.decoding import Reader, opened, start_of

AROUND_S = 0.1  # by which a copied clip may begin or end beside the moment


def can_be_copied(packets: Packets, start: float, end: float) -> bool:
    """Whether a key frame lies at the start of a moment, so that what comes can be decoded from there.

    Pictures that are shown in another order than they are decoded may have to be taken from after its end. Where
    recordings were joined in the file, the second one may be of another size.
    """
    return (
        packets.key_time is not None
        and abs(start - packets.key_time) <= AROUND_S
        and packets.shown_until - end <= AROUND_S
        and len(packets.shifts) == 1
    )


def copy_packets(source: Path, packets: Packets, out: Path, form: Container, check: Callable[[], None]) -> None:
    """Write the packets of a moment that `can_be_copied`; `check` is called for each of the file.

    Left out are pictures that are shown before the key frame, which need those before it, and sound that begins before.

    Raises:
        NotWrittenError: the container does not take them, or what comes of it cannot be decoded from its first picture
            on: not all that is called a key frame can be begun with, and PyAV before 15 spoils copies.
    """
    _copy(source, packets, out, form, check)
    try:
        with opened(out, threads=1) as (container, stream):
            reader = Reader(out, container, stream, start_of(container, stream), 0.0)
            time, _ = next(reader.frames(), (inf, None))
    except InputError as err:
        raise NotWrittenError(str(err)) from err
    if time > AROUND_S:
        raise NotWrittenError("its first picture cannot be decoded")


def _copy(source: Path, packets: Packets, out: Path, form: Container, check: Callable[[], None]) -> None:
    with (
        opened(source, threads=1) as (container, stream),
        written(out, form) as made,
    ):
        sound = sound_of(container)
        taken = [stream] if sound is None else [stream, sound]
        copies = {each.index: made.add_stream_from_template(each) for each in taken}
        assert packets.key_pts is not None
        zero = packets.key_pts * stream.time_base
        zeros = {each.index: round(zero / each.time_base) for each in taken}
        unfinished, number = set(copies), -1
        for packet in held_packets(container, *taken):
            check()
            index = packet.stream.index
            is_picture = index == stream.index
            number += is_picture
            if packet.pts is None or packet.pts < zeros[index] or (is_picture and number < packets.key):
                continue
            seconds = float(packet.pts * packet.time_base) - packets.zero
            if number > packets.last if is_picture else seconds >= packets.shown_until:
                unfinished.discard(index)
                if not unfinished:
                    break
                continue
            packet.pts -= zeros[index]
            packet.dts = None if packet.dts is None else packet.dts - zeros[index]
            packet.stream = copies[index]
            made.mux(packet)
