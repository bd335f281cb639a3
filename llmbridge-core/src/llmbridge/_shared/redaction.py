"""Redaction of keys and passwords in texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SECRETS = re.compile(
    r"""(?ix)
    -----BEGIN\ [A-Z\ ]{0,40}PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z\ ]{0,40}PRIVATE\ KEY-----|\Z)
    | ( ://[^\s/:"]{0,255}: ) [^\s"]{1,1000} (?=@)
    | ( \b(?:set-)?cookie \\*["']? \s*[=:,]\s* (?:\\*b?["'])? ) [^\r\n"']+
    | ( [?&](?:sig|signature|code|auth|x-(?:amz|goog)-(?:signature|security-token))= | \bsignature= ) [^\s&"',]+
    | ( \bauthorization \\*["']? \s*[=:]\s* (?:\\*["'])? (?:(?:basic|bearer|digest|token|apikey)\s+)? ) [^\s"',]+
    | ( \bbearer\s+ | \bbasic\s+ (?=[\w+/.-]{8}) (?=\S*(?:\d|=|(?-i:[a-z][A-Z]))) ) [^\s"',]+
    | ( (?: (?:api|access|account|encryption|private|secret|shared|signing)[-_ ]?key | (?<![a-z0-9])(?:key|pass|pwd)
          | token (?! \\*["']? \s*[=:]\s* \d{1,9} (?! [\w+/=-] | \.\w ) )
          | secret | password | (?<!/etc/)passwd | passphrase | credentials?
        ) \\*["']? \s*(?:[=:]|%3[ad]|(?<=["']),)\s* (?: \\*b?(?P<quote>["']) )?
      ) (?(quote) (?: (?!(?P=quote)). )* | [^\s"'&]+ )
    | \b(?:sk|pk|rk|gsk|xai)-[\w*.-]{7,}[\w*-] | \b(?:sk|pk|rk)_(?:live|test)_\w{8,} | \bgsk_\w{8,}
    | \bAIza[\w-]{10,} | \bA(?:KI|SI)A[A-Z0-9]{12,} | \bhf_\w{8,} | \bgh[opsur]_\w{8,} | \bgithub_pat_\w{8,}
    | \bya29\.[\w-]{8,} | \bpplx-\w{8,} | \br8_\w{8,} | \bfw_\w{8,} | \bdapi[0-9a-f]{16,}
    | \bglpat-[\w-]{8,} | \bxox[a-z]-[\w-]{8,} | \beyJ[\w-]{4,1000}\.[\w-]{4,}(?:\.[\w-]*)?
    """
)


#: Longer texts are cut before they are searched, since searching one of a megabyte takes seconds.
_LONGEST = 8_000
#: What may be left of a secret at the cut is not longer than this.
_LONGEST_SECRET = 1_000


def redact(message: str, secrets: Iterable[str] = ()) -> str:
    """Return `message` with `***` instead of these secrets and of anything that looks like a key or a password.

    A text of more than 8,000 characters is cut at a space, so that no part of a secret is left at its end.
    """
    if len(message) > _LONGEST:
        cut = message[:_LONGEST]
        start = max(map(cut.rfind, " \n\t"))
        message = f"{cut[: max(start, _LONGEST - _LONGEST_SECRET)]}…"
    for secret in secrets:
        message = message.replace(secret, "***")
    return _SECRETS.sub(lambda match: f"{match[match.lastindex] if match.lastindex else ''}***", message)
