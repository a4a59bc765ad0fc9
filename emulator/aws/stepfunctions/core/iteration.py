"""One iteration of an inline Map."""

import asyncio

from emulator.aws.stepfunctions.asl.definition import MapState
from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.aws.stepfunctions.core.interpreter import Interpreter
from emulator.aws.stepfunctions.core.records import Status
from emulator.aws.stepfunctions.core.state_execution import Visit


class Iteration:
    """One iteration: a strand of its own, with the item in its context object.

    Parameters
    ----------
    interpreter
        Runs the states.
    visit
        The Map state's visit.
    index, item
        Which item.
    """

    def __init__(self, interpreter: Interpreter, visit: Visit[MapState], index: int, item: Json) -> None:
        self._interpreter = interpreter
        self._visit = visit
        self._item = item
        self._index = index
        context = {**visit.strand.context, "Map": {"Item": {"Index": index, "Value": item}}}
        self.strand = visit.strand.branch(context, index)

    async def run(self, data: Json) -> Json:
        """Run the Map's states; return their output.

        Parameters
        ----------
        data
            What ItemSelector sees: the Map state's input.
        """
        state, execution = self._visit.state, self._interpreter.execution
        key = execution.begin_item(state.name, self._index, state.name)
        self._event("Started")
        try:
            value = self._item
            if state.item_selector is not None:
                scope = self._visit.scope_with(Map=self.strand.context["Map"])
                value = self._visit.evaluated(state.item_selector, data, scope)
            output = await self._interpreter.run(state.processor, value, self.strand)
        except StateFailure:
            execution.end_item(key, Status.FAILED)
            self._event("Failed")
            raise
        except asyncio.CancelledError:
            execution.end_item(key, Status.ABORTED)
            execution.history.end("MapIterationAborted", self.strand.previous_id, self._details())
            raise
        execution.end_item(key, Status.SUCCEEDED)
        self._event("Succeeded")
        return output

    def _event(self, what: str) -> None:
        history = self._interpreter.execution.history
        self.strand.previous_id = history.add(f"MapIteration{what}", self.strand.previous_id, self._details())

    def _details(self) -> dict[str, Json]:
        return {"name": self._visit.state.name, "index": self._index}
