// Creates a container with a signed request. Arguments: port, account, key, container. Exit 0 when it is there.
const crypto = require("node:crypto");
const http = require("node:http");

const [port, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString();
const version = "2021-08-06";
const resource = `/${account}/${account}/${container}\nrestype:container`;
const text = `PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:${date}\nx-ms-version:${version}\n${resource}`;
const signature = crypto.createHmac("sha256", Buffer.from(key, "base64")).update(text, "utf8").digest("base64");
const request = http.request(
    {
        host: "127.0.0.1",
        port: Number(port),
        method: "PUT",
        path: `/${account}/${container}?restype=container`,
        headers: {
            "x-ms-date": date,
            "x-ms-version": version,
            "Content-Length": 0,
            Authorization: `SharedKey ${account}:${signature}`,
        },
    },
    (response) => {
        response.pipe(process.stderr);
        process.exitCode = [201, 409].includes(response.statusCode) ? 0 : 1;
    },
);
request.on("error", (error) => {
    console.error(String(error));
    process.exitCode = 1;
});
request.end();
