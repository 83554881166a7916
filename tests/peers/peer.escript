#!/usr/bin/env escript
%% Erlang's own framings, served and used.
%%
%% Prints one line for each framing: its name and the port of a server that sends every packet back
%% (a line with its size in front). Then reads lines from its standard input, "<framing> <port> <size>...":
%% connects to that port, sends a packet of each size and answers "ok" where the same came back.
-mode(compile).

main(_) ->
    [io:format("~s ~b~n", [Name, listen(Name)]) || Name <- ["1", "2", "4", "line", "tpkt", "sunrm", "asn1", "fcgi"]],
    commands().

options(Name) ->
    Packet = case Name of
                 "1" -> 1;
                 "2" -> 2;
                 "4" -> 4;
                 _ -> list_to_atom(Name)
             end,
    [binary, {packet, Packet}, {active, false}, {nodelay, true}, {buffer, 400000}, {ip, {127, 0, 0, 1}}].

listen(Name) ->
    {ok, Listener} = gen_tcp:listen(0, [{backlog, 16} | options(Name)]),
    spawn(fun() -> accept(Name, Listener) end),
    {ok, Port} = inet:port(Listener),
    Port.

accept(Name, Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Server = spawn(fun() -> receive go -> serve(Name, Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Server),
    Server ! go,
    accept(Name, Listener).

serve(Name, Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Packet} ->
            ok = gen_tcp:send(Socket, answer(Name, Packet)),
            serve(Name, Socket);
        {error, closed} ->
            gen_tcp:close(Socket)
    end.

answer("line", Line) -> [integer_to_list(byte_size(Line)), " ", Line];
answer(Name, Packet) -> [Packet, padding(Name, Packet)].

%% Padding is sent, but taken off what is received.
padding("fcgi", <<_:48, Size, _/binary>>) -> binary:copy(<<0>>, Size);
padding(_, _) -> <<>>.

commands() ->
    case io:get_line("") of
        eof -> ok;
        Line ->
            [Name, Port | Sizes] = string:lexemes(string:trim(Line), " "),
            Result = (catch connect(Name, list_to_integer(Port), [list_to_integer(Size) || Size <- Sizes])),
            io:format("~0p~n", [Result]),
            commands()
    end.

connect(Name, Port, Sizes) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, options(Name)),
    Packets = [packet(Name, Size) || Size <- Sizes],
    Send = fun(Packet) -> ok = gen_tcp:send(Socket, [Packet, padding(Name, Packet)]) end,
    [begin Send(Packet), {ok, Packet} = gen_tcp:recv(Socket, 0, 20000) end || Packet <- Packets],
    Me = self(),
    spawn(fun() -> Me ! {sent, lists:foreach(Send, Packets)} end),
    [{ok, Packet} = gen_tcp:recv(Socket, 0, 20000) || Packet <- Packets],
    receive {sent, _} -> ok after 20000 -> exit(timeout) end,
    gen_tcp:close(Socket).

packet("line", Size) -> <<(noise(Size))/binary, "\n">>;
packet("tpkt", Size) -> <<3, 0, (Size + 4):16, (noise(Size))/binary>>;
packet("asn1", Size) when Size < 128 -> <<16#30, Size, (noise(Size))/binary>>;
packet("asn1", Size) -> <<16#30, 16#84, Size:32, (noise(Size))/binary>>;
packet("fcgi", Size) -> <<1, 6, 1:16, Size:16, 3, 0, (noise(Size))/binary>>;
packet("sunrm", Size) -> <<1:1, Size:31, (noise(Size))/binary>>;
packet(_, Size) -> noise(Size).

%% Bytes 11 to 250 over and over: no line feed.
noise(Size) -> binary:part(binary:copy(list_to_binary(lists:seq(11, 250)), Size div 240 + 1), 0, Size).
