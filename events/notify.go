package events

// LinkRequest asks the gateway where a run's page is, on LinkSubject. The answer is its address, which opens the page for
// whoever has it; there is none for a run that is not known.
type LinkRequest struct {
	App Slug `json:"app"`
	Run int  `json:"run"`
}
