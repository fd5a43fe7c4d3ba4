package view

// Submission is a change in a repository, or an image that was built elsewhere.
type Submission struct {
	App    string `json:"app,omitempty"`
	Repo   string `json:"repo,omitempty"`
	Commit string `json:"commit,omitempty"`
	Ref    string `json:"ref,omitempty"`
	Image  string `json:"image,omitempty"` // repository@sha256:…
	// Definition is the text of a towpath.yaml, for an image. Without it, and without a repository that
	// holds it, the app's newest run says what its pipeline is.
	Definition string `json:"definition,omitempty"`
	Rebuild    bool   `json:"rebuild,omitempty"`
}

// Submitted is the run that a submission began.
type Submitted struct {
	Run      string   `json:"run"`
	URL      string   `json:"url"`
	Blockers []string `json:"blockers"` // what will keep it waiting later
}
