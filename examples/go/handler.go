// Package addresses says what a range of IPv4 addresses holds.
package addresses

import (
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
)

type network struct {
	Network   netip.Prefix `json:"network"`
	First     netip.Addr   `json:"first"`
	Last      netip.Addr   `json:"last"`
	Addresses uint64       `json:"addresses"`
	Private   bool         `json:"private"`
}

// Handle answers GET /10.0.0.0/22.
func Handle(w http.ResponseWriter, r *http.Request) {
	prefix, err := netip.ParsePrefix(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil || !prefix.Addr().Is4() {
		http.Error(w, "ask for a range such as /10.0.0.0/22", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(describe(prefix.Masked()))
}

func describe(prefix netip.Prefix) network {
	first := prefix.Addr().As4()
	size := uint64(1) << (32 - prefix.Bits())
	var last [4]byte
	binary.BigEndian.PutUint32(last[:], uint32(uint64(binary.BigEndian.Uint32(first[:]))+size-1))
	return network{prefix, prefix.Addr(), netip.AddrFrom4(last), size, prefix.Addr().IsPrivate()}
}
