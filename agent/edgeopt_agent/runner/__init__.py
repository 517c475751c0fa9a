"""The child process that loads a model and answers: ``python -m edgeopt_agent.runner``.

Only this package imports ONNX Runtime. A model that crashes, hangs or eats memory takes this process down and nothing
else; :mod:`edgeopt_agent.inference.supervisor` starts it again.
"""

__all__: list[str] = []
