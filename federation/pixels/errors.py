"""Why there is no picture, whose fault that is, and the HTTP status it becomes. No text holds data of the file."""

from __future__ import annotations

from federation.errors import RequestError, SourcesUnavailable


class PixelError(RequestError):
    """A job of the pool gave nothing. `detail` is for our log: places in code, never data of the file."""

    http_status = 502
    detail = ""


class SickFile(PixelError):
    """The bytes are damaged, contradict themselves, or crash the decoder: the member's file is at fault."""

    http_status = 502


class TooLarge(PixelError):
    """Decoding would take more memory, pixels or output than is allowed."""

    http_status = 413


class TookTooLong(PixelError):
    """Not done within the job's deadline."""

    http_status = 504


class UnsupportedSyntax(PixelError):
    """The transfer syntax can't be decoded here. As stored it can still be had."""

    http_status = 406


class NoPixels(PixelError):
    """The instance is no image, so it can't be rendered."""

    http_status = 406


class NoSuchFrame(PixelError):
    """A frame number that the instance does not have."""

    http_status = 404


class PoolBusy(PixelError, SourcesUnavailable):
    """More jobs wait than the queue holds, or one waited too long: come back in `retry_after_s` seconds."""

    http_status = 503


class PoolClosed(PoolBusy):
    """The service is stopping."""


class PoolBroken(PoolBusy):
    """Processes can't be started: something is wrong with this machine or installation, not with the file."""


#: What a worker may answer, by name.
BY_NAME: dict[str, type[PixelError]] = {
    kind.__name__: kind for kind in (SickFile, TooLarge, TookTooLong, UnsupportedSyntax, NoPixels, NoSuchFrame)
}
