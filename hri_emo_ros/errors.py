# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The one exception type whose message is meant for the person at the keyboard."""

_LONGEST = 1200
"""Characters of a message."""


class HriEmoError(Exception):
    """A problem that the user can mend.

    The message is one sentence that names the offending value, what is allowed and the parameter or
    argument to change. The command-line tool prints it and exits with 2; a node reports it as a
    failed transition or a diagnostic and goes on living.

    Args:
        sentence: made one line, its middle left out where it is long.
        listing: lines to print below it as they are, such as what a folder should hold.
    """

    def __init__(self, sentence: str, listing: str = "") -> None:
        # What a library quotes of a broken file may be all of it.
        line = " ".join(sentence.split())
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
        super().__init__(f"{line}\n{listing}" if listing else line)
