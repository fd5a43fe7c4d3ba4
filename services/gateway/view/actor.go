package view

// Actor is a person, a bot or a service: everything but the hashes of its tokens.
type Actor struct {
	ID        string   `json:"id"`
	Kind      string   `json:"kind"`
	Name      string   `json:"name,omitempty"`
	Email     string   `json:"email,omitempty"`
	Roles     []string `json:"roles"`
	External  []string `json:"external,omitempty"`
	SpeaksFor []string `json:"speaksFor,omitempty"`
	Tokens    int      `json:"tokens"`
	Created   string   `json:"created"`
	Erased    bool     `json:"erased,omitempty"`
}

// NewActor is an actor to be made.
type NewActor struct {
	Kind      string   `json:"kind,omitempty"`
	Name      string   `json:"name"`
	Email     string   `json:"email,omitempty"`
	Roles     []string `json:"roles"`
	SpeaksFor []string `json:"speaksFor,omitempty"`
}
