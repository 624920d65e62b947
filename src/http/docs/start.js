// Nothing is asked of another host: no badge of a validator, and no file but the document.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#calls",
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null,
  displayOperationId: true,
});
