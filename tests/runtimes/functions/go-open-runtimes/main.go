package handler

import (
	"github.com/open-runtimes/types-for-go/v4/openruntimes"
)

// Main does what every runtime's function for Open Runtimes does.
func Main(Context openruntimes.Context) openruntimes.Response {
	request, response := Context.Req, Context.Res
	switch request.Path {
	case "/text":
		return response.Text("text ✓")
	case "/json":
		return response.Json(map[string]any{"hello": "world", "unicode": "żółw 🐢"})
	case "/binary":
		body := make([]byte, 256)
		for i := range body {
			body[i] = byte(i)
		}
		return response.Binary(body)
	case "/empty":
		return response.Empty()
	case "/redirect":
		return response.Redirect("/target")
	case "/request":
		return response.Json(map[string]any{
			"method": request.Method, "url": request.Url, "scheme": request.Scheme, "host": request.Host,
			"port": request.Port, "path": request.Path, "query": request.Query, "queryString": request.QueryString,
			"headers": request.Headers, "bodyText": request.BodyText(),
		})
	case "/body":
		var body any
		if err := request.BodyJson(&body); err != nil {
			panic(err)
		}
		return response.Json(body)
	case "/log":
		Context.Log("info line")
		Context.Error("error line")
		return response.Text("logged")
	case "/nothing":
		return openruntimes.Response{}
	case "/raise":
		panic("the reason ✗")
	}
	return response.Text("there is no "+request.Path, response.WithStatusCode(404))
}
