"""Questions about images to a language model that sees none: captions stand for the image (PICa, PromptCap).

    import kosmos_edge
    from kosmos_edge.apps.endpoint import Endpoint
    from kosmos_edge.apps.pica import Pica, Pool, read_examples

    model = kosmos_edge.load()
    pica = Pica(model, Pool(read_examples("examples.jsonl")), shots=16, ensemble=5)
    print(pica.ask(Endpoint("http://127.0.0.1:8080/v1", "NAME"), "photo.jpg", "What is this animal called?").answer)

The prompts are those that were published. Needs openai: pip install 'kosmos-edge[agent]'; with an index numpy, too.
"""

from kosmos_edge.apps.errors import EndpointError
from kosmos_edge.apps.pica.asking import Answer, Captions, Pica, Prompts, choose
from kosmos_edge.apps.pica.examples import Example, Pool, read_examples
from kosmos_edge.apps.pica.prompts import (
    Shot,
    Style,
    context_of,
    question_prompt,
    scienceqa_choice,
    scienceqa_prompt,
)
from kosmos_edge.apps.pica.questions import Asked, read_questions
from kosmos_edge.apps.pica.running import FileOfAnswers, answer_all

__all__ = [
    "Answer",
    "Asked",
    "Captions",
    "EndpointError",
    "Example",
    "FileOfAnswers",
    "Pica",
    "Pool",
    "Prompts",
    "Shot",
    "Style",
    "answer_all",
    "choose",
    "context_of",
    "question_prompt",
    "read_examples",
    "read_questions",
    "scienceqa_choice",
    "scienceqa_prompt",
]
