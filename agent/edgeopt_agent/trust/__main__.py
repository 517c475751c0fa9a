"""The trust child: reads one question on standard input, answers on standard output, and ends.

It ends by itself after ``_SECONDS`` and with more memory than ``_MEMORY_BYTES``, whatever the metadata make the
libraries do; an answer that does not come counts as a refusal. Example::

    python -m edgeopt_agent.trust <question >answer
"""

from __future__ import annotations

import resource
import signal
import sys

from edgeopt_agent.trust.question import MAX_QUESTION_BYTES, Answer, Outcome, decode_question, encode_answer

_SECONDS = 120  # an emulated or very old board takes tens of seconds to import the libraries
_MEMORY_BYTES = 768 << 20  # of address space; measured: 110 MiB mapped, 45 MiB resident


def _answer() -> Answer:
    question = decode_question(sys.stdin.buffer.read(MAX_QUESTION_BYTES + 1))
    from edgeopt_agent.trust.answering import answer_question

    try:
        return answer_question(question)
    except Exception as error:  # whatever hostile metadata make a library raise: nothing was accepted
        return Answer(
            outcome=Outcome.WAITING, reason=f"the fleet's metadata cannot be used: {type(error).__name__}: {error}"
        )


def main() -> None:
    """Answer one question."""
    signal.alarm(_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    sys.stdout.buffer.write(encode_answer(_answer()))


if __name__ == "__main__":
    main()
