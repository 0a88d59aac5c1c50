"""What can go wrong, whose fault it is, and the HTTP status it becomes at the border."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federation.report import Report


class SourceStatus(StrEnum):
    """How one member took part in one answer; the words of the `Imagora-Sources` header."""

    OK = "ok"
    CAPPED = "capped"
    TIMEOUT = "timeout"
    ERROR = "error"
    REFUSED = "refused"
    SKIPPED = "skipped"

    @property
    def failed(self) -> bool:
        return self not in (SourceStatus.OK, SourceStatus.CAPPED)


class MemberError(Exception):
    """A member did not do its part. The text is for our log: it never holds patient data and never leaves."""

    status = SourceStatus.ERROR
    http_status = 502
    #: True if the failure says that the member is ill; False if it only did not like this request.
    counts_against_member = True


class MemberTimeout(MemberError):
    """No (complete) answer within the deadline."""

    status = SourceStatus.TIMEOUT
    http_status = 504


class MemberUnreachable(MemberError):
    """Connection refused, reset, name unknown, TLS failure."""


class MemberGarbage(MemberError):
    """An answer that is not what was asked for: wrong media type, not DICOM, too large, a redirect."""


class MemberFault(MemberError):
    """The member answers with a fault of its own (5xx). It may still manage the same in another form."""


class MemberRefused(MemberError):
    """The member says no: 401, 403, or a request that it does not accept."""

    status = SourceStatus.REFUSED
    counts_against_member = False


class MemberSkipped(MemberError):
    """Not asked: its circuit breaker is open."""

    status = SourceStatus.SKIPPED
    http_status = 503
    counts_against_member = False


class MemberNotFound(MemberError):
    """The member answers that it does not have this."""

    status = SourceStatus.OK
    http_status = 404
    counts_against_member = False


class MemberCannot(MemberError):
    """The member does not offer this form (406, 415, 501), or refuses the parameters (400)."""

    http_status = 406
    counts_against_member = False


class Untaggable(MemberCannot):
    """It came in a form that has to be turned as a whole, and may be had in another."""


class StoredOtherwise(MemberCannot):
    """It was looked at: it is stored in another form than is asked for, and can't be turned into that here."""


class RequestError(Exception):
    """The client's request can't be served as it is; the text says what to do and may be shown."""

    http_status = 400

    def __init__(self, message: str, *, report: Report | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.report = report  # which sources took part, for the answer's headers


class BadRequest(RequestError):
    http_status = 400


class NotFound(RequestError):
    http_status = 404


class NotAcceptable(RequestError):
    http_status = 406


class TooLarge(RequestError):
    http_status = 413


class Conflict(RequestError):
    """One StudyInstanceUID stands for different people: only a site-scoped request is unambiguous."""

    http_status = 409

    def __init__(
        self, message: str, *, emetteurs: tuple[str, ...], study_uid: str, report: Report | None = None
    ) -> None:
        super().__init__(message, report=report)
        self.emetteurs = emetteurs
        self.study_uid = study_uid


class SourcesUnavailable(RequestError):
    """No member that could have answered did. `retry_after_s` in seconds."""

    http_status = 503

    def __init__(
        self, message: str, *, report: Report | None = None, http_status: int = 503, retry_after_s: int = 10
    ) -> None:
        super().__init__(message, report=report)
        self.http_status = http_status
        self.retry_after_s = retry_after_s


class BrokenTransfer(Exception):
    """A transfer under way can't be completed: the connection to the client must be aborted."""


class Withdrawn(BrokenTransfer):
    """What is being transferred must not be shown any more."""
