package events

// Types of what a person must look into at a store of settings. Whoever logs in there writes them.
const (
	TypeAlarmRaised   Type = "dev.cdeventsx.towpath-alarm.raised.0.1.0"
	TypeAlarmResolved Type = "dev.cdeventsx.towpath-alarm.resolved.0.1.0"
)

// Alarm says that somebody else may hold what was handed over for a service, or for a container of an app, alone. It
// holds no secret.
type Alarm struct {
	Environment Slug   `json:"environment"`   // default: those that platform.yaml does not name
	App         Slug   `json:"app,omitempty"` // whose container it is about; empty: a service's own login
	What        string `json:"what"`          // "login of promote at Vault of prod (https://…)"
	Why         string `json:"why"`
	Do          string `json:"do"` // what a person does about it
}

// AlarmRaised is written once when it is found that what was to be used once was used by somebody else. Its subject id is
// <environment>/<what>. People act on it, also where everything works again.
type AlarmRaised struct {
	About
	Alarm
}

// AlarmResolved is written once what was raised is mended: the service has logged in with what a person put there since, or
// the version of the app is gone, and all that it was given with it.
type AlarmResolved struct {
	About
	Alarm
}

// AlarmSubject is where alarm.raised and alarm.resolved are stored: for the nth alarm (1 and up) of a writer.
func AlarmSubject(epoch int, w Writer, t Type, app, env Slug, nth int) Subject {
	return at(epoch, w, t, app, 0, env, "", nth)
}

func (*AlarmRaised) Type() Type    { return TypeAlarmRaised }
func (*AlarmRaised) custom() any   { return nil }
func (*AlarmResolved) Type() Type  { return TypeAlarmResolved }
func (*AlarmResolved) custom() any { return nil }
