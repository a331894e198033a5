"""The lifecycle node: transitions and services, which delegate."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from vss_ros.core.errors import EngineError, VssError, error_text
from vss_ros.core.stream.resets import CLOCK_JUMPED, REQUESTED
from vss_ros.ros.core_log import CoreLog
from vss_ros.ros.diagnostics import Diagnostics
from vss_ros.ros.labels import Labels
from vss_ros.ros.loading import Loading
from vss_ros.ros.parameters import Parameters
from vss_ros.ros.settings import Settings
from vss_ros.ros.statistics import StreamStatistics
from vss_ros.ros.stream import CameraStream

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SegmentationNode(LifecycleNode):
    """Segments the images of one camera topic. Default name: `segmentation`.

    Threads: the executor's alone; the stream has the worker, the loading a thread of its own.
    """

    def __init__(self, name: str = 'segmentation', **arguments: Any) -> None:
        super().__init__(name, **arguments)
        self._stream: CameraStream | None = None
        self._labels: Labels | None = None
        self._loading: Loading | None = None
        self._enabled = True
        self._was_closed = False
        self._declared = Parameters(self, self._is_configured, self._check_settings, self._settings_changed)
        self._core_log = CoreLog(self)
        self._diagnostics = Diagnostics(self, self._core_log)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(Trigger, '~/request_key_frame', self._on_request_key_frame)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=self._on_clock_jump,
        )
        # A transition may last; what is in the default group is served meanwhile.
        self._transitions = MutuallyExclusiveCallbackGroup()
        self._guard_transitions()
        if self.get_parameter('autostart').value:
            self._autostart = self.create_timer(
                0.0, self._start_by_itself, self._transitions, self._diagnostics.clock
            )

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        def configure() -> None:
            self._diagnostics.state, self._diagnostics.error = 'configuring', ''
            self._loading = Loading(self._declared.read(), self._core_log)
            loaded = self._loading.wait(self)
            settings = self._declared.read()  # live parameters may have changed meanwhile
            self._stream = CameraStream(self, settings, StreamStatistics(), loaded, self._core_log)
            self._labels = Labels(self, self._stream.model.classes, settings, self._stream.statistics)
            self._diagnostics.stream = self._stream
            super(SegmentationNode, self).on_configure(state)

        result = self._transition('configure', 'inactive', configure)
        self._loading = None
        if result is not SUCCESS:
            self._diagnostics.state = 'unconfigured'
            self._free()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        def activate() -> None:
            assert self._stream is not None
            super(SegmentationNode, self).on_activate(state)
            self._stream.start(self._enabled)
            self._diagnostics.start_over()
            if self._enabled:  # else it has not subscribed
                self._declared.warn_of_unused_overrides()

        result = self._transition('activate', 'active', activate)
        if result is not SUCCESS and self._stream is not None:
            self._stream.stop()
            super().on_deactivate(state)  # the publishers, which were activated first
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        def deactivate() -> None:
            assert self._stream is not None
            self._stream.stop()
            super(SegmentationNode, self).on_deactivate(state)

        return self._transition('deactivate', 'inactive', deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition('clean up', 'unconfigured', self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._transition('shut down', 'finalized', self._free)
        self._diagnostics.state = 'finalized'  # that it is in any case
        return result

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition('recover', 'unconfigured', self._free)

    def close(self) -> bool:
        """Ends the worker and frees the engine, before the node is destroyed. Can be called again.

        Returns:
            False if a model is still being loaded, or a frame is in work that does not end: neither can be
            stopped.
        """
        self._was_closed = True
        self._jumps.unregister()
        try:
            self._free()
        except EngineError as error:
            self.get_logger().error(str(error))
            return False
        self._core_log.close()
        return self._loading is None or not self._loading.is_running

    def destroy_node(self) -> None:
        """Closes the node, if that was not tried yet, and gives back all it has of ROS."""
        if not self._was_closed:
            self.close()
        super().destroy_node()
        # rclpy leaves this one to the garbage collector. It holds the node, and with it the shared memory of
        # Fast DDS, which would outlive a process that ends without one.
        if (machine := getattr(self, '_state_machine', None)) is not None:
            machine.destroy_when_not_in_use()

    def _is_configured(self) -> bool:
        return self._stream is not None or self._loading is not None

    def _transition(self, verb: str, goal: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        """Runs a transition's action; a failure is one logged line, kept for the diagnostics."""
        try:
            action()
        except Exception as error:
            if not self.context.ok():
                raise KeyboardInterrupt from None  # the process is being ended
            text = ' '.join(error_text(error).split())  # one line
            self.get_logger().error(f'cannot {verb}: {text}')
            if not isinstance(error, VssError):
                self.get_logger().debug(traceback.format_exc())
            self._diagnostics.error = f'cannot {verb}: {text}'
            self._diagnostics.publish()
            return FAILURE
        self._diagnostics.error = ''
        self._diagnostics.state = goal
        return SUCCESS

    def _free(self) -> None:
        if self._stream is not None:
            self._stream.close()  # first: while it cannot be, the rest is still needed to tell so
        if self._labels is not None:
            self._labels.close()
        self._diagnostics.stream = self._labels = self._stream = None

    def _check_settings(self, settings: Settings) -> None:
        """Raises ModelError if the model that is loaded cannot be run with them."""
        if self._stream is not None:
            self._stream.check(settings)

    def _settings_changed(self, settings: Settings) -> None:
        if self._stream is not None:
            self._stream.configure(settings)
        if self._labels is not None:
            self._labels.configure(settings)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data != self._enabled:  # asked for again and again it must not hide that nothing comes
            self._diagnostics.start_over()
        self._enabled = self._diagnostics.enabled = request.data
        response.success, response.message = True, 'enabled' if request.data else 'disabled'
        try:
            if self._stream is not None:
                self._stream.enable(request.data)
        except Exception as error:  # QoS overrides that cannot be used
            response.success, response.message = False, error_text(error)
        return response

    def _on_request_key_frame(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._ask_stream(response, CameraStream.request_key_frame)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._ask_stream(response, lambda stream: stream.reset(REQUESTED))

    def _ask_stream(
        self, response: Trigger.Response, action: Callable[[CameraStream], None]
    ) -> Trigger.Response:
        stream = self._stream
        response.success = stream is not None
        if stream is None:
            response.message = 'the node is not configured'
        else:
            action(stream)
        return response

    def _on_clock_jump(self, jump: Any) -> None:
        if self._stream is not None:
            self._stream.reset(CLOCK_JUMPED)

    def _start_by_itself(self) -> None:
        self._autostart.cancel()
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def _guard_transitions(self) -> None:
        """Keeps an invalid transition id from ending the process (rclpy issue 1209).

        Also gives the service its own callback group, as `LifecycleNode` has no argument for that.
        """
        service = getattr(self, '_service_change_state', None)
        if service is None:
            return
        self._transitions.add_entity(service)
        service.callback_group = self._transitions
        change_state = service.callback

        def guarded(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except Exception as error:
                self.get_logger().error(f'transition {request.transition.id} refused: {error}')
                response.success = False
                return response

        service.callback = guarded
