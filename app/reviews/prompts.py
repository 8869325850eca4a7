"""Questions for a review, in our own words.

Pure. They open a conversation and have no required answers. Further reading, not copied here: Etsy's *Debriefing
Facilitation Guide*, PagerDuty's *Post-Mortem Handbook*, and *Post-Incident Reviews* (O'Reilly, 2017).
"""

from dataclasses import dataclass
from enum import StrEnum

from app.incidents.history.path import Phase


class PromptAudience(StrEnum):
    FACILITATOR = "facilitator"
    PARTICIPANT = "participant"


@dataclass(frozen=True, slots=True)
class Prompt:
    """`phase` is None if the question concerns the whole incident."""

    id: str
    audience: PromptAudience
    text: str
    phase: Phase | None = None


_F, _P = PromptAudience.FACILITATOR, PromptAudience.PARTICIPANT

PROMPTS: tuple[Prompt, ...] = (
    Prompt("know_sooner", _P, "What would let us know sooner that something is wrong?", Phase.DETECTION),
    Prompt("when_did_we_know", _P, "When did each of you first know, and from what?", Phase.DETECTION),
    Prompt("customers_experience", _P, "What did customers see, and when did we see the same?", Phase.DETECTION),
    Prompt("recover_sooner", _P, "What would let us recover sooner?", Phase.RESPONSE),
    Prompt(
        "thought_process",
        _P,
        "What were you thinking at this point, and what did you expect to happen?",
        Phase.RESPONSE,
    ),
    Prompt(
        "what_influenced", _P, "What influenced your choice: signals, advice, habit, earlier incidents?", Phase.RESPONSE
    ),
    Prompt("asked_for_help", _P, "How did you decide whether to ask for help, and whom?", Phase.RESPONSE),
    Prompt("unsafe_whenever", _P, "Which tasks feel unsafe whenever you do them?", Phase.REMEDIATION),
    Prompt("expected_instead", _P, "What did you expect to see, and what did you see?", Phase.REMEDIATION),
    Prompt("how_do_we_do_x", _P, "How do we do this on an ordinary day?", Phase.REMEDIATION),
    Prompt("status_page_when", _P, "When did those affected first hear from us, and what did we say?", Phase.RESPONSE),
    Prompt("sla_at_risk", _P, "Which promises to customers were at risk, and who noticed?", Phase.RESPONSE),
    Prompt("new_to_you", _P, "What did you hear today that was new to you?", Phase.ANALYSIS),
    Prompt("what_good_looks_like", _P, "What does it look like when this goes well?", Phase.ANALYSIS),
    Prompt("how_improve", _P, "How will we get better at this, and how will we see that we have?", Phase.READINESS),
    Prompt("all_moving_pieces", _F, "Has everyone described the part of the system that they know best?"),
    Prompt("hindsight", _F, "Are we judging by what we know now? Go back to what was visible at the time."),
    Prompt("confirmation", _F, "Which evidence speaks against the explanation that we like?"),
    Prompt("groupthink", _F, "Who sees it differently? Ask the quietest person first."),
    Prompt("efficiency_or_thoroughness", _F, "Where did people have to choose between fast and thorough?"),
)
PROMPT_IDS = frozenset(prompt.id for prompt in PROMPTS)
