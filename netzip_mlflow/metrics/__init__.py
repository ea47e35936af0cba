"""What is measured, one module per family; all of it off the deployable, none of it needs torch.

accuracy, fidelity      on scores (numpy)
operations, size        on the ONNX file
latency, process        on what the runtime executes
machine                 what the figures were measured on
"""

from __future__ import annotations

__all__: list[str] = []
