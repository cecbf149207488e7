"""Pure models of the legacy devices: functions of state, input and guest time."""
