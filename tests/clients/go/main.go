// The Go clients: net/http at a URL, or grpc-go at HOST:PORT; prints everything that came back.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

func main() {
	var err error
	switch os.Args[1] {
	case "http":
		err = overHTTP(os.Args[2])
	case "grpc":
		err = overGRPC(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func overHTTP(url string) error {
	for _, ask := range []func() (*http.Response, error){
		func() (*http.Response, error) { return http.Get(url + "/echo/fields") },
		func() (*http.Response, error) {
			return http.Post(url+"/echo/body", "text/plain", strings.NewReader(strings.Repeat("x", 4096)))
		},
	} {
		answer, err := ask()
		if err != nil {
			return err
		}
		body, err := io.ReadAll(answer.Body)
		fmt.Println(answer.Proto, answer.StatusCode, answer.Header, string(body))
		if err != nil || answer.StatusCode != 200 {
			return fmt.Errorf("status %d, %v", answer.StatusCode, err)
		}
	}
	return nil
}

// Bytes as they are, without protocol buffers.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte(nil), data...); return nil }
func (raw) Name() string                       { return "raw" }

func overGRPC(target string) error {
	context, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	context = metadata.AppendToOutgoingContext(context, "authorization", "Bearer "+os.Getenv("ACME_API_KEY"))
	connection, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(credentials.NewTLS(nil)),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		return err
	}
	defer connection.Close()
	for _, word := range []string{"hello", "secret"} {
		request, answer, trailer := []byte(word), []byte{}, metadata.MD{}
		if err := connection.Invoke(context, "/talk.Talk/Echo", &request, &answer, grpc.Trailer(&trailer)); err != nil {
			return err
		}
		fmt.Println("unary", string(answer), trailer)
	}
	description := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	talk, err := connection.NewStream(context, description, "/talk.Talk/Chat")
	if err != nil {
		return err
	}
	for number := range 20 {
		word, heard := []byte(fmt.Sprint("word ", number)), []byte{}
		if err := talk.SendMsg(&word); err != nil {
			return err
		}
		if err := talk.RecvMsg(&heard); err != nil {
			return err
		}
		if string(heard) != "heard "+string(word) {
			return fmt.Errorf("heard %q", heard)
		}
	}
	if err := talk.CloseSend(); err != nil {
		return err
	}
	if err := talk.RecvMsg(&[]byte{}); err != io.EOF {
		return fmt.Errorf("no end: %v", err)
	}
	fmt.Println("dialogue", talk.Trailer())
	return nil
}
