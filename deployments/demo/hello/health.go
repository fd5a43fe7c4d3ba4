package main

import "net/http"

// health is what Towpath asks before it sends anybody here.
func health(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusOK)
}
