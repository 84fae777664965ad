"""Pieces of a video into one file without encoding their pictures again, with the sound under all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...errors import OutputError
from .container import open_output
from .soundtrack import Soundtrack, SoundtrackSource

LIVE = {
    # A fragment reaches the file when it lasts this long (microseconds), and the index waits for the first one.
    "movflags": "use_metadata_tags+delay_moov+default_base_moof",
    "frag_duration": "500000",
    "flush_packets": "1",
}


class Joiner:
    """Appends segments, MP4 files of one encoder with the same settings and no sound, to a new file.

    `live`: the file is fragmented and plays at any moment up to the last segments, even if the process dies; else
    it becomes one like those of `VideoWriter`. Sound is encoded from its own source, so that it stays in time
    whatever the number of segments.
    Raises: OutputError, or what PyAV and the system raise; MediaError for unusable sound.
    """

    def __init__(
        self,
        path: Path,
        fps: Fraction,
        audio: SoundtrackSource | None,
        metadata: Mapping[str, str],
        *,
        live: bool = False,
    ) -> None:
        self.path, self.fps, self.frames = path, fps, 0
        self._audio = audio
        self._container: Any = open_output(path, metadata, LIVE if live else None)
        self._stream: Any = None
        self._sound: Soundtrack | None = None
        self._extradata: bytes | None = None

    def add(self, segment: Path) -> None:
        """Append the pictures of a segment, and the sound up to their end."""
        import av

        with av.open(f"file:{segment}") as source:
            video = source.streams.video[0]
            extradata = bytes(video.codec_context.extradata or b"")
            if self._stream is None:
                self._stream = self._container.add_stream_from_template(video)
                self._extradata = extradata
                if self._audio is not None:
                    self._sound = Soundtrack(self._audio, self._container)
            elif extradata != self._extradata:
                raise OutputError(f"{segment}: was made by another video encoder than the ones before it")
            assert video.time_base is not None
            begin, count = round(self.frames / self.fps / video.time_base), 0
            for packet in source.demux(video):
                if packet.dts is None or packet.pts is None:  # the end
                    continue
                packet.pts += begin
                packet.dts += begin
                packet.stream = self._stream
                self._container.mux_one(packet)
                count += 1
        self.frames += count
        if self._sound is not None:
            self._sound.write_until(self.frames / self.fps)

    def close(self) -> None:
        """Finish the file."""
        if self._sound is not None:
            self._sound.finish()
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def abort(self) -> None:
        """Let go of the file as it is."""
        with contextlib.suppress(Exception):
            if self._sound is not None:
                self._sound.close()
        container, self._container = self._container, None
        with contextlib.suppress(Exception):
            if container is not None:
                container.close()
