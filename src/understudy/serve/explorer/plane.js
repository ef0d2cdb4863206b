export class PlaneView { show() {} enter() {} }
